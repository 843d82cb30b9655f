//! What in an image speaks for a class.

use super::{Image, Studio, StudioError, pictures};
use ndarray::{Array2, Axis};
use serde_json::{Value, json};
use striate::draw::sheet::{self, Palette};
use striate::explain::{self, CamRule, ExplainError, OcclusionOptions};
use striate::layers::{ReluRule, predicted_class};

impl Studio {
    pub(super) fn why(&self, pixels: &str, class: Option<usize>, layer: Option<&str>) -> Result<Value, StudioError> {
        let model = self.model();
        let network = &model.network;
        let image = Image::from_text(pixels, &model.preprocessing)?;
        let x = image.x.view();
        let logits = network.predict(x.insert_axis(Axis(0)))?.index_axis(Axis(0), 0).to_vec();
        let class = class.unwrap_or_else(|| predicted_class(&logits));
        let picture = sheet::picture(image.shown.view());
        let mut views = Vec::new();
        let mut view = |name: &str, map: &image::RgbImage, over: &image::RgbImage, about: Value| {
            let (map, over) = (pictures::png(map)?, pictures::png(over)?);
            views.push(json!({ "view": name, "map": map, "over": over, "about": about }));
            Ok::<(), StudioError>(())
        };
        match explain::cam(network, x, class, layer, CamRule::GradCam) {
            Ok(cam) => {
                let reach = cam.map.iter().copied().fold(0.0, f32::max);
                let map = sheet::map(cam.map.view(), Palette::Heat, (0.0, reach));
                let about = json!({ "layer": cam.layer, "reach": reach });
                view("grad-cam", &map, &sheet::overlay(&picture, cam.heat.view()), about)?;
            }
            // A network without convolution has no maps; the other views do without.
            Err(ExplainError::NeedsConvolution { .. }) => {}
            Err(error) => return Err(error.into()),
        }
        let side = network.input().height.min(network.input().width);
        // A square of a sixth of the side, at not much more than a hundred places.
        let options = OcclusionOptions { window: (side / 6).max(1), stride: (side / 14).max(1), value: 0.0 };
        let found = explain::occlusion(network, x, class, &options)?;
        let mut signed = |name: &str, values: &Array2<f32>, mut about: Value| {
            let (map, reach) = sheet::signed(values.view());
            about["reach"] = reach.into();
            view(name, &map, &sheet::overlay_signed(&picture, values.view()), about)
        };
        signed("occlusion", &found.drop, json!({ "window": options.window }))?;
        let gradient = explain::gradient(network, x, class, ReluRule::Gradient)?;
        signed("gradient", &gradient.sum_axis(Axis(0)), json!({}))?;
        Ok(json!({
            "class": class,
            "score": logits.get(class),
            "picture": pictures::png(&picture)?,
            "views": views,
        }))
    }
}
