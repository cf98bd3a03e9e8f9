"""Images, labels, tasks and batches; data sets by name, augmentation, and files to pixels."""
