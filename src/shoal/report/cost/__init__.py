"""Cost: what runs took of a machine, as money, and where another machine would be cheaper."""
