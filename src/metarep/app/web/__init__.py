"""A model as a static web page, which classifies in the browser without a server or a network."""
