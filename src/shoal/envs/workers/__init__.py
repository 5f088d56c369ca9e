"""Workers: Python environments in processes over shared memory."""
