"""Libraries that step many environments by themselves, as rows."""
