"""Programs to read and to copy from: vqcore in somebody else's model, and a picture of what its estimators do."""
