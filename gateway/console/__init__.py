"""The console: what operators see and do. Pages, a JSON API and live updates over one `gateway.desk.Desk`.

It promises that a page never looks live when it is not, and that an open alarm is on every page until it is closed.
"""
