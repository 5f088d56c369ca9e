"""A fleet: environment servers and trainings that Ray places on this machine or on many."""
