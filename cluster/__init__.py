"""What an operator runs: the `ragserve` command, start and deploy, and the edge."""
