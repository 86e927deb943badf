# The image of every Ray node and of the submitting pod: the pinned set, the checkout as its folder, a user 1000.
#   docker build --tag REGISTRY/maskrcnn:VERSION .
# torch's wheel for Linux brings the CUDA libraries, so that the same image runs on GPUs and without one; a GPU's host
# gives only the driver (on Kubernetes by NVIDIA's device plugin, in Docker by --gpus all).
FROM python:3.11-slim

# KubeRay's probes and its submitter call bash, grep and wget.
RUN apt-get update \
    && apt-get install --yes --no-install-recommends wget \
    && rm -rf /var/lib/apt/lists/*

RUN groupadd --gid 1000 ray && useradd --uid 1000 --gid 1000 --create-home ray

WORKDIR /opt/maskrcnn
COPY constraints.txt pyproject.toml README.md LICENSE ./
COPY maskrcnn ./maskrcnn
COPY jobs ./jobs
RUN pip install --no-cache-dir -c constraints.txt '.[jobs]' && rm -rf build maskrcnn.egg-info

ENV PYTHONUNBUFFERED=1 \
    RAY_AUTH_MODE=token \
    RAY_USAGE_STATS_ENABLED=0

USER 1000:1000
