"""Contract suites that authors of new formats, costs, strategies and models can run on their own."""
