// The language of the page: its texts, and how numbers and lists are written.

import { CHINESE } from "./chinese.js";
import { ENGLISH } from "./english.js";

const TEXTS = { en: ENGLISH, zh: CHINESE };
const preferred = navigator.language.toLowerCase().startsWith("zh") ? "zh" : "en";
let language = localStorage.getItem("language") ?? preferred;

export const currentLanguage = () => language;

export const hasText = (key) => key in TEXTS[language];

// The text of a key in the current language. say("images.n", {n: 2}) fills in {n}, and takes images.n.one where n is 1.
export function say(key, values = {}) {
  const texts = TEXTS[language];
  const text = (values.n === 1 && texts[`${key}.one`]) || texts[key] || key;
  return text.replace(/\{(\w+)\}/g, (whole, name) => (name in values ? written(values[name]) : whole));
}

const written = (value) => (typeof value === "number" ? value.toLocaleString(language) : value); // 2,020 and not 2020

// A probability in whole percent; never 0 % or 100 %, because nothing is certain.
export function percent(probability) {
  if (probability > 0.99) return "> 99 %";
  if (probability < 0.01) return "< 1 %";
  return `${Math.round(100 * probability)} %`;
}

// Joins names with commas and "or".
export function listNames(names) {
  return new Intl.ListFormat(language, { type: "disjunction" }).format(names);
}

// Fills in the texts of the document: data-word is a text, data-hint a placeholder, data-label a name for screen readers.
export function translate() {
  document.documentElement.lang = language;
  for (const element of document.querySelectorAll("[data-word]")) element.textContent = say(element.dataset.word);
  for (const element of document.querySelectorAll("[data-hint]")) element.placeholder = say(element.dataset.hint);
  for (const element of document.querySelectorAll("[data-label]")) element.setAttribute("aria-label", say(element.dataset.label));
  const other = document.getElementById("language");
  other.textContent = language === "en" ? "中文" : "English";
  other.lang = language === "en" ? "zh" : "en";
}

export function switchLanguage() {
  language = language === "en" ? "zh" : "en";
  localStorage.setItem("language", language);
}
