"""What connects pyvirt to other software: sweeps over any executor of `concurrent.futures`."""
