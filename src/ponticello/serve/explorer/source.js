// The source of answers: the service, or the files of an export.

const kind = document.querySelector('meta[name="ponticello-source"]').content;

export const source = await import(kind === "folder" ? "./folder.js" : "./service.js");
