"""A detector at work: on folders of images, over HTTP."""
