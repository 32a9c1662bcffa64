// Placeholder until the interface is in place.
export {};
