// Small helpers to make elements. Text is always set as text; HTML only where the server has cleaned it.

export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else element.setAttribute(name, value === true ? "" : value);
  }
  element.append(...children.flat().filter((child) => child !== null && child !== undefined));
  return element;
}

export function clean(html, className = "text") {
  const element = h("div", { class: className });
  element.innerHTML = html; // made by the server's renderer, never by a model
  return element;
}

// What the server shows by number in ``written``, by the character itself: for places that build their text by themselves.
export function hidden(written) {
  const numbers = [...clean(written).querySelectorAll(".sign[title]")].map((sign) => sign.textContent);
  return new Map(numbers.map((number) => [String.fromCodePoint(parseInt(number.slice(3, -1), 16)), number]));
}

export function signed(text, signs) {
  if (!signs.size) return [text];
  return [...text].map((char) => (signs.has(char) ? h("span", { class: "sign", title: "a character that is not seen" }, signs.get(char)) : char));
}

export const letter = (place) => String.fromCharCode(65 + place);

// A button that shows its key. The text before the key is its name.
export function keyed(label, key, press, attributes = {}) {
  const shown = key ? [" ", h("kbd", { "aria-hidden": "true" }, key)] : [];
  return h("button", { type: "button", onclick: press, "aria-keyshortcuts": key, ...attributes }, h("span", {}, label), ...shown);
}

export const id = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(16)), (byte) => byte.toString(16).padStart(2, "0")).join("");
