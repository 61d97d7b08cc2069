"""Train mappers (`collect`, `train_mapper`), and the tiny models that come with the library."""
