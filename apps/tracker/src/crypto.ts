// What fhirclient would bring a stand-in for: every browser of today has it.
export default globalThis.crypto;
