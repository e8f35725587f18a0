"""Names of the detail panel's tabs, by which a handler is told which one is open."""

TOKEN, LAYER, EXPERTS, ATTRIBUTION, FLOW = "token", "layer", "experts", "attribution", "flow"
