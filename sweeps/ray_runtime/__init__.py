"""Ray as this machine or a cluster runs it: sessions, tokens, GPU memory."""
