"""The folder of results: rows and pictures in Parquet, on this machine or in other storage."""
