"""How a batch is done: its lines checked, then asked, no more at once than others can bear."""
