//! Beside the flow: names inside the agent's world. egret answers all DNS of an agent itself.
