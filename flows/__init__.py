"""The Prefect flows: they schedule, retry and show; the work is in `pipelines`."""
