// Elements without a framework. Texts go in as texts: nothing that came from elsewhere is ever read as markup.

type Child = Node | string | null;
type Attributes = Record<string, string | boolean | ((event: Event) => void)>;

export function h<K extends keyof HTMLElementTagNameMap>(
  tag: K, attributes: Attributes = {}, ...children: Child[]
): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false) element.setAttribute(name, value);
  }
  element.append(...children.filter((child) => child !== null));
  return element;
}

export function p(text: string, className = ""): HTMLParagraphElement {
  return h("p", className ? { class: className } : {}, text);
}

/** Terms and what they say; those that say nothing are left out. */
export function facts(pairs: [string, string][]): HTMLElement {
  const told = pairs.filter(([, text]) => text);
  return h("dl", {}, ...told.flatMap(([term, text]) => [h("dt", {}, term), h("dd", {}, text)]));
}
