# Nothing of it is for other modules: it measures, and is called from Python alone.
