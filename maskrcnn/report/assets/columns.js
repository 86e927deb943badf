"use strict";
// The packed columns of all images, and what they say at a score threshold and of some categories.
window.columns = (() => {
  function numbers(text, Numbers) {
    const binary = atob(text);
    const bytes = new Uint8Array(binary.length);
    for (let place = 0; place < bytes.length; place++) bytes[place] = binary.charCodeAt(place);
    return new Numbers(bytes.buffer);
  }

  function begins(counts) {
    const sums = new Uint32Array(counts.length + 1);
    counts.forEach((count, place) => { sums[place + 1] = sums[place] + count; });
    return sums;
  }

  function unpack(index) {
    const sizes = numbers(index.sizes, Uint32Array);  // height, width of each image
    const table = {
      folder: index.folder,
      prefix: index.prefix,
      names: index.names,
      reasons: index.reasons,
      categories: index.categories,
      steps: index.score_steps,
      states: numbers(index.states, Uint8Array),
      size: (place) => ({ height: sizes[2 * place], width: sizes[2 * place + 1] }),
      begins: begins(numbers(index.counts, Uint32Array)),
      scores: numbers(index.scores, Uint16Array),
      labels: numbers(index.labels, Uint16Array),
      hasTruth: "outcomes" in index,
    };
    table.length = table.names.length;
    table.searched = table.names.map(
      (name, place) => `${table.prefix}${name} ${table.reasons[place] || ""}`.toLowerCase());
    if (table.hasTruth) {
      table.outcomes = numbers(index.outcomes, Uint8Array);
      table.truthBegins = begins(numbers(index.truth_counts, Uint32Array));
      table.truthLabels = numbers(index.truth_labels, Uint16Array);
      table.truthScores = numbers(index.truth_scores, Uint16Array);  // its finder's plus one step; 0: never found
    }
    return table;
  }

  // What is shown of an instance and of a truth; a truth is missed where its finder is below the threshold.
  const isShown = (table, instance, view) =>
    table.scores[instance] >= view.step && !view.hidden.has(table.labels[instance]);
  const isMissed = (table, truth, view) =>
    table.truthScores[truth] <= view.step && !view.hidden.has(table.truthLabels[truth]);

  function count(table, view) {
    const counts = {
      shown: new Uint32Array(table.length),
      wrong: new Uint32Array(table.length),
      missed: new Uint32Array(table.length),
      certainty: new Float64Array(table.length).fill(Infinity),  // mean score; nothing to be uncertain of comes last
      byCategory: new Uint32Array(table.categories.length),
      total: 0,
    };
    const isHidden = new Uint8Array(table.categories.length);
    view.hidden.forEach((label) => { isHidden[label] = 1; });
    for (let place = 0; place < table.length; place++) {
      let sum = 0;
      for (let instance = table.begins[place]; instance < table.begins[place + 1]; instance++) {
        const label = table.labels[instance];
        if (table.scores[instance] < view.step) continue;
        counts.byCategory[label]++;
        if (isHidden[label]) continue;
        counts.shown[place]++;
        sum += table.scores[instance];
        if (table.hasTruth && table.outcomes[instance] === 2) counts.wrong[place]++;
      }
      counts.total += counts.shown[place];
      if (counts.shown[place]) counts.certainty[place] = sum / counts.shown[place];
      if (!table.hasTruth) continue;
      for (let truth = table.truthBegins[place]; truth < table.truthBegins[place + 1]; truth++) {
        if (table.truthScores[truth] <= view.step && !isHidden[table.truthLabels[truth]]) counts.missed[place]++;
      }
    }
    return counts;
  }

  const isWanted = {
    all: () => true,
    errors: (table, counts, place) => counts.wrong[place] + counts.missed[place] > 0,
    missed: (table, counts, place) => counts.missed[place] > 0,
    wrong: (table, counts, place) => counts.wrong[place] > 0,
    some: (table, counts, place) => counts.shown[place] > 0,
    none: (table, counts, place) => counts.shown[place] === 0 && table.states[place] !== 1,
    failed: (table, counts, place) => table.states[place] === 1,
  };

  const orders = {
    table: () => 0,
    errors: (counts) => (one, other) =>
      counts.wrong[other] + counts.missed[other] - counts.wrong[one] - counts.missed[one],
    uncertain: (counts) => (one, other) =>
      counts.certainty[one] === counts.certainty[other] ? 0 : counts.certainty[one] - counts.certainty[other],
    most: (counts) => (one, other) => counts.shown[other] - counts.shown[one],
    fewest: (counts) => (one, other) => counts.shown[one] - counts.shown[other],
    name: (counts, table) => (one, other) =>
      table.names[one] < table.names[other] ? -1 : table.names[one] > table.names[other] ? 1 : 0,
  };

  // The places of the images that are wanted, in order; those that failed come last where detections are compared.
  function select(table, counts, view) {
    const words = view.search.toLowerCase().split(/\s+/).filter(Boolean);
    const places = [];
    for (let place = 0; place < table.length; place++) {
      if (isWanted[view.only](table, counts, place) && words.every((word) => table.searched[place].includes(word))) {
        places.push(place);
      }
    }
    if (view.sort === "table") return places;
    const compare = orders[view.sort](counts, table);
    const failedLast = (one, other) => (table.states[one] === 1) - (table.states[other] === 1);
    return places.sort((one, other) => (view.sort === "name" ? 0 : failedLast(one, other)) || compare(one, other));
  }

  return { unpack, count, select, isShown, isMissed, only: Object.keys(isWanted), sorts: Object.keys(orders) };
})();
