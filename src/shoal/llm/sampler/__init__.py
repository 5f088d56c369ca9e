"""The sampler: many answers at once, token by token, with the weights of the moment."""
