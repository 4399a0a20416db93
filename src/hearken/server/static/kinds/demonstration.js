// The response that should have been given, written from nothing.

import { writing } from "./writing.js";

export function mount(task, desk, draft) {
  return writing({
    name: "demonstration", question: "Write the response you would wish for.", kind: "demonstration", label: "Your response",
    text: draft.text ?? "", empty: "Write a response, or skip.", said: "Response saved", desk, body: (paper) => paper,
  });
}
