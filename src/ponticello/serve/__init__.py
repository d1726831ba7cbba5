"""The HTTP service and the explorer.

app            the FastAPI application
routes         the routes by topic
schemas        requests and responses
errors         errors as JSON
security       tokens, hosts, limits and headers
snapshot       the open library, reloaded when it changes
catalog        rows of the catalogue for clients
projection     two-dimensional maps
metrics        metrics for Prometheus
static_export  the explorer as static files
explorer       the page and its ES modules
"""
