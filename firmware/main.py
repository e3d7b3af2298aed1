"""What the board boots into."""

from firmware import app

app.main()
