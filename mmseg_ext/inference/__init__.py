"""Prediction of images, folders and videos with a trained model, and auto-labelling."""
