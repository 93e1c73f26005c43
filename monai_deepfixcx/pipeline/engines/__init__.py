"""Where shards are encoded: in this process, in others, on a Dask cluster, in SLURM jobs."""
