"""A person's own classes: gallery, answers, trust, model folder, scikit-learn estimator and export."""
