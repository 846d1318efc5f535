"""The audit log: what it holds, how it is written, proved, read and kept."""
