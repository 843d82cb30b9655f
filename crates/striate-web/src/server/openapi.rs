//! `GET /openapi.json`: what can be asked, for programs.

use super::Options;
use serde_json::{Value, json};
use striate::formats::ModelFile;

pub(super) fn document(model: &ModelFile, options: &Options) -> Value {
    let input = model.network.input();
    let content = |schema: Value| json!({ "application/json": { "schema": schema } });
    let reference = |name: &str| json!({ "$ref": format!("#/components/schemas/{name}") });
    let refusal = |words: &str| json!({ "description": words, "content": content(reference("Error")) });
    let get = |summary: &str, kind: &str| {
        let media = json!({ kind: { "schema": { "type": if kind == "text/plain" { "string" } else { "object" } } } });
        json!({ "get": { "summary": summary, "responses": { "200": { "description": summary, "content": media } } } })
    };
    let image = json!({ "oneOf": [
        { "type": "string", "format": "byte", "description": "an image file in base64, or a data: URI of one" },
        { "type": "array", "items": {}, "description": format!(
            "whole numbers from 0 to 255 as nested lists of {} x {} x {} (channels, height, width)",
            input.channels, input.height, input.width
        ) },
    ] });
    json!({
        "openapi": "3.1.0",
        "info": {
            "title": format!("Striate: {}", model.network.description().name),
            "version": env!("CARGO_PKG_VERSION"),
            "description": "Image classification. Files of any size are brought to the network's as the model file says.",
        },
        "paths": {
            "/predict": { "post": {
                "summary": "Classes of one image or many, with probabilities",
                "parameters": [{
                    "name": "top", "in": "query", "schema": { "type": "integer", "minimum": 1, "default": 5 },
                    "description": "Classes named for each image",
                }],
                "requestBody": { "required": true, "content": {
                    "image/*": { "schema": { "type": "string", "contentEncoding": "binary" } },
                    "application/octet-stream": { "schema": { "type": "string", "contentEncoding": "binary" } },
                    "multipart/form-data": { "schema": {
                        "type": "object", "additionalProperties": { "type": "string", "contentEncoding": "binary" },
                    } },
                    "application/json": { "schema": { "oneOf": [
                        { "type": "object", "required": ["image"], "properties": { "image": image } },
                        { "type": "object", "required": ["images"], "properties": {
                            "images": { "type": "array", "items": image, "maxItems": options.most_images() },
                        } },
                    ] } },
                } },
                "responses": {
                    "200": {
                        "description": "prediction for one image, predictions for a form or for images",
                        "content": content(json!({ "type": "object", "required": ["model"], "properties": {
                            "model": { "type": "string" },
                            "prediction": reference("Prediction"),
                            "predictions": { "type": "array", "items": reference("Prediction") },
                        } })),
                    },
                    "400": refusal("What was sent is no image, or not the JSON that is expected"),
                    "408": refusal("The body took too long"),
                    "413": refusal(&format!(
                        "A body over {} bytes, a picture over {} pixels, or more than {} images",
                        options.max_body, options.max_pixels, options.most_images()
                    )),
                    "422": refusal("Decoding took too long"),
                    "503": refusal("The queue is full; Retry-After says when to come again"),
                },
            } },
            "/model": get("The model: classes, input, layers, preprocessing, metrics", "application/json"),
            "/healthz": get("Whether the server is there", "application/json"),
            "/metrics": get("Counters for Prometheus", "text/plain"),
            "/openapi.json": get("This document", "application/json"),
        },
        "components": { "schemas": {
            "Prediction": {
                "type": "object",
                "required": ["class", "index", "probability", "top"],
                "properties": {
                    "class": { "type": "string", "enum": model.class_names },
                    "index": { "type": "integer" },
                    "probability": { "type": "number" },
                    "top": { "type": "array", "items": { "type": "object", "properties": {
                        "class": { "type": "string" }, "index": { "type": "integer" }, "probability": { "type": "number" },
                    } } },
                },
            },
            "Error": { "type": "object", "required": ["error"], "properties": { "error": { "type": "string" } } },
        } },
    })
}
