"""Export: shoal's environments as Gymnasium's VectorEnv and Env, for other libraries."""
