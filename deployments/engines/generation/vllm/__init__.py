"""Generation by vLLM, an extra (`ragserve[vllm]`): nothing else imports it."""
