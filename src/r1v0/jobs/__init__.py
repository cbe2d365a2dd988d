"""What the command line does besides training, a module or a folder for each verb."""
