"""The training loop and what it needs: batches, loss, schedule, early stopping, checkpoints."""
