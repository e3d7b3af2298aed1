"""The console over a stand-in desk: what people may see and do, and what is refused."""
