"""The CPU scheduler: event engine, run queues and policies."""
