"""The live page: runs as they stand now, in a browser on this machine, served from what their directories hold."""
