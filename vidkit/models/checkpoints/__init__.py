"""What a checkpoint is, told from its keys, shapes and configs: the tables behind `vidkit.models.inspection`."""
