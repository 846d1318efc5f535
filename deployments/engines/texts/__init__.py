"""What engines that read texts share: tokens, segments, batches, and being loaded and stopped."""
