"""Where and when things run. The only room that knows Ray, and it learns of it only when a worker group starts."""
