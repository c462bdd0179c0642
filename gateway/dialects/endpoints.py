"""Every inference path that Corral relays."""

from gateway.dialects import anthropic, ollama, openai
from gateway.dialects.request import Endpoint

ENDPOINTS: dict[str, Endpoint] = {
    endpoint.path: endpoint for endpoint in (*ollama.ENDPOINTS, *openai.ENDPOINTS, *anthropic.ENDPOINTS)
}
