"""Actors: processes that act and step beside the learner, each with rows and a copy of the policies of its own."""
