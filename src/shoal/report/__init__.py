"""Reports: shows runs (panel, curves, tables, videos); never trains."""
