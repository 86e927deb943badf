-- Queries over the output of a labelling job, for DuckDB. Put the job's --output in place of OUTPUT:
--     sed "s|OUTPUT|demo-output/predictions|" docs/queries.sql

-- The current rows: one an image, of its newest version and last attempt; the same that read_predictions gives.
-- The newest version of an image is the one whose first plan has the highest number (a part's name holds its plan's),
-- so that an old version that was tried again does not become new. Older rows stay in the table, and are left out here.
CREATE OR REPLACE VIEW predictions AS
WITH numbered AS (
    SELECT *, regexp_extract(filename, 'part-(\d+)-\d+\.parquet$', 1)::BIGINT AS plan
    FROM read_parquet('OUTPUT/table/**/*.parquet', hive_partitioning = true, filename = true, union_by_name = true)
),
versions AS (
    SELECT *, min(plan) OVER (PARTITION BY image_uri, etag) AS first_plan
    FROM numbered
)
SELECT * EXCLUDE (filename, plan, first_plan)
FROM versions
QUALIFY row_number() OVER (PARTITION BY image_uri ORDER BY first_plan DESC, attempt DESC, filename DESC) = 1;

-- How many images are labelled, and why the others are not.
SELECT status, error_kind, count(*) AS images
FROM predictions
GROUP BY ALL
ORDER BY images DESC, error_kind;

-- Products by category.
SELECT instance.category AS category, count(*) AS products, avg(instance.score) AS mean_score
FROM (SELECT unnest(instances) AS instance FROM predictions)
GROUP BY ALL
ORDER BY products DESC, category;

-- The same by date, where the job was given --date-from.
SELECT date, instance.category AS category, count(*) AS products
FROM (SELECT date, unnest(instances) AS instance FROM predictions)
GROUP BY ALL
ORDER BY date, category;
