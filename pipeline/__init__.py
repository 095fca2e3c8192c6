"""Geography and arrays: files, grids, labels and Dask. Knows no network."""
