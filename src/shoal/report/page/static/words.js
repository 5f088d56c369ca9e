// Numbers and times as a person reads them.

export function count(value) {
  if (value === null || value === undefined) return "–";
  return Math.round(value).toLocaleString("en");
}

export function short(value) {
  // 500, 50k, 1.5M: for the marks of an axis.
  const sizes = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]];
  for (const [size, letter] of sizes) {
    if (Math.abs(value) >= size) return `${Number((value / size).toPrecision(4))}${letter}`;
  }
  return String(Number(value.toPrecision(4)));
}

export function number(value, digits = 4) {
  if (value === null || value === undefined || !Number.isFinite(value)) return "–";
  const size = Math.abs(value);
  if (size >= 1e6 || (size > 0 && size < 1e-3)) return value.toExponential(digits - 1);
  return String(Number(value.toPrecision(digits)));
}

export function decimal(value) {
  if (value === null || value === undefined) return "–";
  return Math.abs(value) < 1e9 ? value.toFixed(1) : value.toExponential(3);
}

export function clock(seconds) {
  if (seconds === null || seconds === undefined) return "–";
  if (seconds >= 360000) return "days";
  const whole = Math.round(seconds);
  const two = (part) => String(part).padStart(2, "0");
  const [hours, minutes, rest] = [Math.floor(whole / 3600), Math.floor(whole / 60) % 60, whole % 60];
  return hours ? `${hours}:${two(minutes)}:${two(rest)}` : `${minutes}:${two(rest)}`;
}

export function percent(share) {
  return `${Math.round(100 * share)} %`;
}

// An element with its text and children; nothing here is ever read as markup.
export function make(tag, attributes = {}, ...inside) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== false) found.setAttribute(name, value === true ? "" : value);
  }
  found.append(...inside);
  return found;
}

// Changes a text only where it differs: a reader of the screen is not disturbed, nor is the layout.
export function say(element, text) {
  if (element.textContent !== text) element.textContent = text;
}
