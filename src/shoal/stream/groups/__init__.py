"""The stream `groups`: answers of a language model to prompts of a task, several to each, scored."""
